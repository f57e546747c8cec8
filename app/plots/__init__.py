"""Plots of scale values. Importing :mod:`app.plots.canvas` imports pyqtgraph; the rest does not."""
