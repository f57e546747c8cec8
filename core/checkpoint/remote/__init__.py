"""Checkpoints that lie on a hub, a web server or in a bucket: kilobytes are fetched, the rest stays where it is.

The road: :mod:`address` says what was asked for, a *place* (:mod:`hub`, :mod:`web`, :mod:`bucket`) lists and reads its
files, :mod:`bringing` fetches configs, index and headers into a :mod:`mirror` on disk, and from there the checkpoint is
opened as any local one. Values are fetched when they are asked for. Only this package needs ``kvscope[remote]``.
"""
