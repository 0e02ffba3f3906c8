# `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# T=path runs a part of the tests: make test T=tests/unit
T ?=
# B=… are options of the bench: make bench B=--quick
B ?=

.PHONY: help install install-dev run run-keycloak test test-browser test-keycloak test-long test-newest test-oldest mutate check format lock messages reference docs bench screenshots clean ci

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed; set PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=…") if sys.version_info < (3, 11) else 0'
	@echo "→ creating the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: requirements.txt $(VENV)/.python
	@echo "→ installing what the site needs (requirements.txt)"
	@$(BIN)/python -m pip install --quiet --no-deps -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.python
	@echo "→ installing what tests and checks need (requirements-dev.txt)"
	@$(BIN)/python -m pip install --quiet --no-deps -r requirements-dev.txt
	@touch $@ $(VENV)/.run

install: $(VENV)/.run  ## create the virtual environment and install the pinned requirements
install-dev: $(VENV)/.dev  ## the same with everything that tests and checks need

run: $(VENV)/.run  ## set everything up and serve the site (with the sandbox, if there are no credentials)
	@echo "→ preparing the database"
	@$(BIN)/python manage.py migrate --verbosity 0
	@exec $(BIN)/python manage.py runserver

run-keycloak: $(VENV)/.dev  ## serve the site with a real Keycloak in sipgate's place (needs Java 17 and Maven)
	@$(BIN)/python -m tests.keycloak.distribution
	@exec $(BIN)/python -m tests.keycloak.serve

test: $(VENV)/.dev  ## run the tests (T=path for a part)
	@$(BIN)/python -m tests.run $(T)
	@echo "All tests passed. Next: make check, or make run to look at it."

test-long: $(VENV)/.dev  ## the long proofs: all pairs of points, chaos, failovers, restores, nginx, Celery, the package from the index (T=path)
	@$(BIN)/python -m tests.run --long $(T)

test-browser: $(VENV)/.dev  ## only the tests in Chromium; screenshots of every page land in artifacts/
	@SCREENSHOTS=1 $(BIN)/python -m tests.run --only=sqlite tests/browser

test-keycloak: $(VENV)/.dev  ## the tests against a real Keycloak, which is downloaded once (needs Java 17 and Maven)
	@$(BIN)/python -m tests.keycloak.distribution
	@$(BIN)/python -m tests.keycloak $(T)
	@echo "All tests against Keycloak passed."

test-newest: $(VENV)/.dev  ## the suite's core with the newest Python at hand, and the newest of everything
	@$(BIN)/python -m tests.package.versions newest $(T)

test-oldest: $(VENV)/.dev  ## the same with the oldest releases that the app supports
	@$(BIN)/python -m tests.package.versions oldest $(T)

# W=… chooses some of the rules, or those of one test file: make mutate W=journal
W ?=
mutate: $(VENV)/.dev  ## break what the rules of tests/mutations name, one after the other: the tests must notice (W=word for some)
	@$(BIN)/python -m tests.mutate $(W)

bench: $(VENV)/.dev  ## measure the promises about speed, each beside a bare baseline (B=--quick for a smoke run)
	@$(BIN)/python -m bench $(B)

LANGUAGES := from django.conf import settings; print(*[f'-l {code}' for code, _ in settings.LANGUAGES if code != settings.LANGUAGE_CODE])
messages: $(VENV)/.dev  ## collect what is to be translated, and compile the catalogues
	@$(BIN)/python manage.py makemessages $$($(BIN)/python manage.py shell -v0 -c "$(LANGUAGES)") --no-location --no-wrap --no-obsolete -i 'sipgate_sandbox/*' -i 'tests/*' -i 'bench/*' -i 'var/*' -i '$(VENV)/*'
	@sed -i '/POT-Creation-Date/d;/Report-Msgid/d' sipgate_*/locale/*/LC_MESSAGES/django.po
	@$(BIN)/python manage.py compilemessages -i '$(VENV)' -i var

reference: $(VENV)/.dev  ## write the tables of docs/reference.md that the code knows
	@DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python manage.py shell --verbosity 0 -c "from tests.project import reference; reference.main()"

DOCS := $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html --conf-dir docs . build/docs
docs: $(VENV)/.dev  ## build the documentation as a searchable site in build/docs/ (warnings are errors)
	@$(DOCS)
	@echo "Built. Open build/docs/README.html."

screenshots: $(VENV)/.dev  ## make the documents' pictures anew, from the running project
	@$(BIN)/python -m tests.browser.screenshots

check: $(VENV)/.dev  ## linters, types, import contracts, Django's checks, missing migrations, pinned requirements, documentation
	@echo "→ ruff"; $(BIN)/ruff check . && $(BIN)/ruff format --check .
	@echo "→ mypy"; $(BIN)/mypy && $(BIN)/mypy --config-file mypy-sandbox.ini
	@echo "→ import contracts"; $(BIN)/lint-imports
	@echo "→ Django's checks"; $(BIN)/python manage.py check --fail-level WARNING
	@echo "→ migrations"; $(BIN)/python manage.py makemigrations --check --dry-run
	@echo "→ requirements"; $(BIN)/uv pip install --quiet --dry-run --offline --python $(BIN)/python -r pyproject.toml --group site --group dev -c requirements.txt -c requirements-dev.txt
	@echo "→ documentation"; $(DOCS)
	@echo "All checks passed. Next: make test."

format: $(VENV)/.dev  ## let ruff correct what it can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: $(VENV)/.dev  ## compile requirements.txt and requirements-dev.txt from the ranges in pyproject.toml, with the newest releases
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --group site pyproject.toml -o requirements.txt
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --group site --group dev pyproject.toml -c requirements.txt -o requirements-dev.txt
	@echo "Locked. Next: make test."

clean:  ## remove what was made here: environment, local database, caches (not .env)
	@rm -rf $(VENV) var build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info

ci: check test  ## what CI runs
