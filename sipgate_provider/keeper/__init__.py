"""The keeper: one rotating token pair per connection, stored sealed, refreshed once and in time.

Operators' work, sign-in and the modules at the root of the app use it. It must not know a REST resource, a page or a
flow of allauth.
"""
