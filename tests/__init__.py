"""The tests. Each folder answers one question; its docstring says what its tests may use.

===============  =================================================================================
folder           question
===============  =================================================================================
``unit``         Does this module keep its promise?
``flows``        Does the whole journey work, over HTTP?
``concurrency``  What if two things happen at once, or a process is killed?
``outage``       What if the database goes away?
``protocol``     Does the protocol hold in every order of its steps? Models, explored exhaustively
``chaos``        What is lost, and why, when everything goes wrong at once? ``make test-long``
``sandbox``      Does the local sipgate behave like sipgate?
``facts``        What does a server of sipgate's kind answer? Asserted of sandbox and Keycloak
``keycloak``     Does the site work with a real Keycloak?
``browser``      Does a person get through, in Chromium?
``package``      Does the installed package work in sites of other people?
``project``      Do README, docs, settings and catalogues say what the code does?
===============  =================================================================================

Helpers stand beside the folders:

- ``conftest`` has the fixtures that several folders use, ``journey`` the browser of one person.
- Servers to test against: the sandbox (journeys), ``rotator`` (thousands of refreshes),
  ``raw_server`` (any bytes), ``postgres`` (a throwaway database).
- ``processes`` forks workers and serves the site; ``served`` does with an operator's environment.
- ``sample_site`` and ``foreign_site`` are sites that use the app.
- ``make test`` calls ``run``. ``make mutate`` calls ``mutate``, whose rules are in ``mutations``.
- ``named`` replaces a part of the app by name: to break it, or to stop a process there.

No test replaces what it tests, and none sleeps and hopes. Only loopback addresses are used.
"""
