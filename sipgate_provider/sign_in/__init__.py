"""Fits sipgate into allauth's sign-in.

::

    the button      views.SipgateLoginView     → provider → sipgate
    the callback    views.SipgateCallbackView  allauth's view, with the steps that it leaves open:
                      once, limits             a state is used once; limits on callbacks
                      oauth                    code → tokens → identity; then one transaction
                      repair                   another user came back
                      trouble                  what went wrong, in words
    the completion  receivers                  tokens.store

Only the modules that Django and allauth look for by name use it: ``urls``, ``provider``,
``adapter`` and ``apps``.
"""
