"""What all other packages use: parameters, files, hardware, Markdown."""
