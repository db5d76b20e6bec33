"""Video files and folders of frames: read, upscaled piece by piece, written."""
