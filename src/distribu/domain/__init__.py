"""What a wholesaler's business is: pure values, their rules, and why they change.

Nothing here does I/O, reads a clock or knows a framework; it imports Python alone.
"""
