"""How the window looks: palettes, status shapes, icons."""
