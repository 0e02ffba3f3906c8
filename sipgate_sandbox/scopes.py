"""The scopes that the sandbox knows: those of sipgate's specification, and OpenID Connect's."""

READ_AND_WRITE = """
    account addresses authorization:oauth2:clients autorecording:greeting blacklist
    callrestrictions contacts devices devices:callerid devices:localprefix
    devices:singlerowdisplay devices:tariffannouncement faxlines history notifications numbers
    phonelines phonelines:blockanonymous phonelines:devices phonelines:forwardings
    phonelines:parallelforwardings phonelines:sipgateio phonelines:voicemails
    phonelines:voicemails:greetings portings rtcm settings settings:sipgateio sms sms:callerid
    users
"""
OTHERS = """
    all balance:read channels:read devices:sim:write devices:sims:orders:write email
    faxlines:numbers:read groups:devices:write groups:faxlines:read groups:numbers:read groups:read
    groups:users:read groups:voicemails:read log:webhooks:read offline_access openid
    phonelines:numbers:read phonelines:sipgateio:log:read profile sessions:calls:write
    sessions:fax:write sessions:sms:write sessions:write users:busyonbusy:write
    users:defaultdevice:write users:role:write voicemails:read
"""
SCOPES = tuple(
    sorted(
        [
            *OTHERS.split(),
            *(f"{name}:{right}" for name in READ_AND_WRITE.split() for right in ("read", "write")),
        ]
    )
)
