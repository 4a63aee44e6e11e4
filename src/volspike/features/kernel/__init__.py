"""The compiled feature kernel: one event of one product in constant time, whatever the windows and the rate.

- ``layout``: columns of the arrays, and the two records that compiled functions receive;
- ``sums``: sums that do not drift, and the deviation of returns computed from them;
- ``core``: the seven families over the windows;
- ``added``: the families of the full and the deep feature set;
- ``step``: one event from admission to its rows, and the two entry points ``step`` and ``run``.

Importing ``step`` imports numba, which takes half a second; ``layout`` alone does not.
"""
