"""Does a person get through? Stories in Chromium: languages, phone and desktop, light and dark, accessibility.

May use: Chromium and the project as ``make run`` starts it. Must not repeat what ``flows`` asserts already.
"""
