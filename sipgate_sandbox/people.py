"""The people of the sandbox and their companies. All are invented, and each stands for a case of real accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One sipgate login. ``account`` is the answer of ``/account``, word for word."""

    sub: str
    master_sip_id: str
    firstname: str
    lastname: str
    email: str
    about: str
    about_german: str
    account: dict[str, Any]
    number: int
    domain: str = "sipgate.de"
    locale: str = "de_DE"
    email_verified: bool = True
    admin: bool = True
    feature_scope: str = "CLASSIC_PBX"
    identity_extra: dict[str, Any] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        return f"{self.master_sip_id}{self.sub}"

    @property
    def name(self) -> str:
        return f"{self.firstname} {self.lastname}"

    @property
    def keycloak_sub(self) -> str:
        """The ``sub`` of tokens, which differs from the REST API's."""
        return f"f:6b7d3c52-3f0e-4f0c-9d6f-0f2c5a1e8d11:{self.number}"


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
        sub="w0",
        master_sip_id="1000000",
        number=2100001,
        firstname="Rosa",
        lastname="Gärtner",
        email="rosa@rosenduft.example",
        about="administers a company",
        about_german="verwaltet ein Unternehmen",
        account=ROSE,
        identity_extra={
            "userId": "2100001",
            "isTestAccount": True,
            "isAdmin": True,
            "product": "team",
            "flags": [],
        },
    ),
    Person(
        sub="w1",
        master_sip_id="1000000",
        number=2100002,
        firstname="Veit",
        lastname="Veilchen",
        email="veit@rosenduft.example",
        about="a colleague in the same company, without admin rights",
        about_german="Kollege im selben Unternehmen, ohne Administratorrechte",
        account=ROSE,
        admin=False,
    ),
    Person(
        sub="w0",
        master_sip_id="2000000",
        number=2100003,
        firstname="Otto",
        lastname="Schraube",
        email="otto@schraube.example",
        about="the w0 of another company",
        about_german="der w0 eines anderen Unternehmens",
        account=_account("Schraube & Mutter KG", "SIMQUADRAT"),
    ),
    Person(
        sub="w0",
        master_sip_id="3000000",
        number=2100004,
        firstname="Petra",
        lastname="Privat",
        email="petra@privat.example",
        about="a private customer without a company",
        about_german="Privatkundin ohne Unternehmen",
        account=_account("", "BASIC", historyLifeTime="THIRTY_DAYS"),
    ),
    Person(
        sub="w0",
        master_sip_id="4000000",
        number=2100005,
        firstname="Ehrenfried",
        lastname="Ehemals",
        email="e@ehemals.example",
        about="a former customer",
        about_german="ehemaliger Kunde",
        account=_account("Ehemals OHG", "FORMER_TEAM", historyLifeTime="NONE"),
    ),
    Person(
        sub="w0",
        master_sip_id="5000000",
        number=2100006,
        firstname="Ulla",
        lastname="Ungeprüft",
        email="ulla@ungeprueft.example",
        about="an account that is not verified",
        about_german="ein Konto, das nicht verifiziert ist",
        account=_account("Ungeprüft UG", verified=False),
        email_verified=False,
    ),
    Person(
        sub="w0",
        master_sip_id="6000000",
        number=2100007,
        firstname="Namenlos",
        lastname="Ohnepost",
        email="",
        about="someone without an e-mail address",
        about_german="jemand ohne E-Mail-Adresse",
        account=_account("Ohnepost e. K."),
    ),
    Person(
        sub="w0",
        master_sip_id="7000000",
        number=2100008,
        firstname="Neo",
        lastname="Neumann",
        email="neo@neumann.example",
        about="a neo account with a product that is not in the specification",
        about_german="ein neo-Konto mit einem Produkt, das nicht in der Spezifikation steht",
        account=_account("Neumann Neubau GmbH", "NEO_STARTER"),
        feature_scope="NEO_PBX",
    ),
    Person(
        sub="w0",
        master_sip_id="8000000",
        number=2100009,
        firstname="Lücke",
        lastname="Halbleer",
        email="halb@leer.example",
        about="an account with missing, empty and new fields",
        about_german="ein Konto mit fehlenden, leeren und neuen Feldern",
        account={"company": None, "verified": None, "partnerLevel": "gold", "tags": ["new"]},
    ),
    Person(
        sub="w0",
        master_sip_id="9000000",
        number=2100010,
        firstname="Emma",
        lastname="Thames",
        email="emma@thames.example",
        about="a British account",
        about_german="ein britisches Konto",
        account=_account("Thames Telephones Ltd"),
        domain="sipgate.co.uk",
        locale="en_GB",
    ),
)

BY_UID = {person.uid: person for person in PEOPLE}
