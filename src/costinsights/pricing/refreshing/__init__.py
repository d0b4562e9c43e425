"""How the book's lines are found at their vendors, one file a vendor, and what they share.

`costinsights.pricing.refresh` asks for lines; `lookup` says how each is found; a vendor's file brings
what it offers; `offers` makes one line of one offer, or says why not. Nothing here is imported by a
program that is measured.
"""
