"""What every part of the house stands on: parameters, files, the machine."""
