"""The keeper holds one token pair per connection. It stores the pair sealed (encrypted), and refreshes it in time.

Operators' work, sign-in and the modules at the root of the app use it. It must not know a REST resource, a page or a
flow of allauth.
"""
