"""Files on a disk that may fill up or lose power: opened safely, written whole, appended."""
