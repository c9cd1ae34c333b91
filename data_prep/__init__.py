"""Raw downloads to prepared data sets: `python -m data_prep.NAME`."""
