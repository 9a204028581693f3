"""The colours of every plot of rtk, which are to be told apart by everybody, on a white and on a dark page.

They were chosen by a search for the eight colours that are farthest from each other, as seen with and without each of
the three kinds of colour blindness (the matrices of Machado, Oliveira and Fernandes, 2009), among those with a contrast
of 3 or more to both pages (WCAG 2.2, 1.4.11). A test measures both.
"""

ORANGE, BLUE, VIOLET, GREEN = "#e86b06", "#2d97f6", "#792bfc", "#7d9d6c"
BROWN, GREY, PINK, MAGENTA = "#9b5523", "#756264", "#c37eb3", "#c008b4"
ALL = (ORANGE, BLUE, VIOLET, GREEN, BROWN, GREY, PINK, MAGENTA)
