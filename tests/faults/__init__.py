"""What happens to the program when something goes wrong: damaged and hostile input, kills, full disks, odd names.

    python -m pytest -m 'slow or not slow' -s tests/faults

Each test prints how many trials it made and how they ended.
"""
