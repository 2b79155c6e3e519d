"""``python -m training.demonstration --out FOLDER``."""

from training.demonstration.build import main

if __name__ == "__main__":
    main()
