"""A plain site to compare with: allauth, a provider as its documentation shows one, a refresh written by hand.

No keeper, no lock, no journal, nothing sealed, one language, no style: what somebody builds in an afternoon.
"""
