"""The people of the sandbox. All are invented; each stands for a kind of real account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One sipgate login. ``account`` is what ``/account`` answers, word for word."""

    uid: str
    """``masterSipId`` and ``sub`` of the REST API."""
    firstname: str
    lastname: str
    email: str
    about: str
    account: dict[str, Any]
    domain: str = "sipgate.de"
    locale: str = "de_DE"
    email_verified: bool = True
    admin: bool = True
    feature_scope: str = "CLASSIC_PBX"

    @property
    def master_sip_id(self) -> str:
        return self.uid.partition("w")[0]

    @property
    def sub(self) -> str:
        """The id within the company. Other companies have the same ids."""
        return self.uid.removeprefix(self.master_sip_id)

    @property
    def name(self) -> str:
        return f"{self.firstname} {self.lastname}"

    @property
    def keycloak_sub(self) -> str:
        """The ``sub`` of tokens, which differs from the REST API's."""
        return f"f:6b7d3c52-3f0e-4f0c-9d6f-0f2c5a1e8d11:{self.uid.replace('w', '')}"


def _account(company: str, product: str = "TEAM", **more: Any) -> dict[str, Any]:
    return {
        "company": company,
        "mainProductType": product,
        "logoUrl": "",
        "verified": True,
        "historyLifeTime": "UNLIMITED",
        **more,
    }


ROSE = _account("Rosenduft Gartenbau GmbH", logoUrl="https://logo.example/rose.png")

PEOPLE = (
    Person(
        uid="1000000w0",
        firstname="Rosa",
        lastname="Gärtner",
        email="rosa@rosenduft.example",
        about="administers a company",
        account=ROSE,
    ),
    Person(
        uid="1000000w1",
        firstname="Veit",
        lastname="Veilchen",
        email="veit@rosenduft.example",
        about="a colleague in the same company, without admin rights",
        account=ROSE,
        admin=False,
    ),
    Person(
        uid="2000000w0",
        firstname="Otto",
        lastname="Schraube",
        email="otto@schraube.example",
        about="the w0 of another company",
        account=_account("Schraube & Mutter KG", "SIMQUADRAT"),
    ),
    Person(
        uid="3000000w0",
        firstname="Petra",
        lastname="Privat",
        email="petra@privat.example",
        about="a private customer without a company",
        account=_account("", "BASIC", historyLifeTime="THIRTY_DAYS"),
    ),
    Person(
        uid="4000000w0",
        firstname="Ehrenfried",
        lastname="Ehemals",
        email="e@ehemals.example",
        about="a former customer",
        account=_account("Ehemals OHG", "FORMER_TEAM", historyLifeTime="NONE"),
    ),
    Person(
        uid="5000000w0",
        firstname="Ulla",
        lastname="Ungeprüft",
        email="ulla@ungeprueft.example",
        about="an account that is not verified",
        account=_account("Ungeprüft UG", verified=False),
        email_verified=False,
    ),
    Person(
        uid="6000000w0",
        firstname="Namenlos",
        lastname="Ohnepost",
        email="",
        about="someone without an email address",
        account=_account("Ohnepost e. K."),
    ),
    Person(
        uid="7000000w0",
        firstname="Neo",
        lastname="Neumann",
        email="neo@neumann.example",
        about="a neo account with a product that is not in the specification",
        account=_account("Neumann Neubau GmbH", "NEO_STARTER"),
        feature_scope="NEO_PBX",
    ),
    Person(
        uid="8000000w0",
        firstname="Lücke",
        lastname="Halbleer",
        email="halb@leer.example",
        about="an account with missing, empty and new fields",
        account={"company": None, "verified": None, "partnerLevel": "gold", "tags": ["new"]},
    ),
    Person(
        uid="9000000w0",
        firstname="Emma",
        lastname="Thames",
        email="emma@thames.example",
        about="a British account",
        account=_account("Thames Telephones Ltd"),
        domain="sipgate.co.uk",
        locale="en_GB",
    ),
)

BY_UID = {person.uid: person for person in PEOPLE}
