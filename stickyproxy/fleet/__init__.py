"""All data planes of one proxy: their sum, and the worker processes that they stand in where there are several."""
