"""The demo model: a toy CLIP trained on pictures of coloured shapes, and those pictures."""
