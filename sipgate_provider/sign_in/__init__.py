"""Fits sipgate into allauth's sign-in: what is asked of sipgate, what is refused, and what a completed sign-in stores.

::

    the button      views.SipgateLoginView       → provider → sipgate
    the callback    views.SipgateCallbackView    allauth's own view, with the steps that it leaves to us:
                      once, limits               the state is used once; not too often, not too many at a time
                      oauth                      code → tokens → identity; then one transaction to the end
                      repair                     somebody else came back
                      trouble                    what went wrong, in words
    the completion  receivers                    tokens.store

Only ``urls``, ``provider``, ``adapter`` and ``apps``, which Django and allauth look for by name, use it.
"""
