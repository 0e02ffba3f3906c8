"""The tests. Each folder answers one question; its docstring says which, and what its tests may use.

===================  ==============================================================================================
folder               question
===================  ==============================================================================================
``unit``             Does this module keep its promise?
``flows``            Does the whole journey work, over HTTP?
``concurrency``      What if two things happen at once, or a process is killed?
``outage``           What if the database goes away?
``protocol``         Does the protocol hold in every order of its steps? Small models, explored exhaustively
``chaos``            What is lost, and why, when everything goes wrong at once, for an hour? ``make test-long``
``sandbox``          Does the local sipgate behave like sipgate?
``facts``            What does an authorization server of sipgate's kind answer? Asserted of sandbox and Keycloak
``keycloak``         Does the site work with a real Keycloak?
``browser``          Does a person get through, in Chromium?
``package``          Does the installed package work in sites of other people?
``upstream``         Do allauth's own provider tests pass?
``project``          Do README, docs, settings and catalogues say what the code does?
===================  ==============================================================================================

Helpers stand beside the folders:

- ``conftest`` has the fixtures that several folders use, ``journey`` the browser of one person.
- Servers to test against: the sandbox (journeys), ``strict`` (thousands of refreshes), ``scripted`` (any answer),
  ``wire`` (any bytes), ``postgres`` (a throwaway database).
- ``processes`` starts workers and the deployed site, ``worker_settings`` are their settings.
- ``sample`` and ``foreign_site`` are sites that use the app.
- ``run`` is what ``make test`` calls. ``make mutate`` calls ``mutate``, whose rules are in ``mutations``.
- ``named`` puts something in the place of a part of the app: a rule's breakage, or a point to stop at.

No test replaces the thing that it tests, and none sleeps and hopes. Only loopback addresses are used.
"""
