"""What pullers of AWS's bill share: boto3's sessions, and what kinds of lines AWS has.

Credentials are boto3's own: a profile, a role that the profile may assume, or whatever boto3 finds.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  msgspec looks at it
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from costinsights.asking import patiently
from costinsights.billing.puller import Puller, PullError

if TYPE_CHECKING:
    from collections.abc import Callable

PROVIDER = "AWS"
TIMEOUT_SECONDS = 60


class Record(NamedTuple):
    """What FOCUS calls a line of AWS's, by its record type or line item type."""

    category: str
    frequency: str | None = None
    """Where it is another than follows from the category."""
    correction: bool = False


_USAGE = Record("Usage")
_ONCE = Record("Purchase", "One-Time")
_AGAIN = Record("Purchase", "Recurring")
_DISCOUNT = Record("Adjustment")

RECORDS: Mapping[str, Record] = {
    "Usage": _USAGE,
    "DiscountedUsage": _USAGE,
    "SavingsPlanCoveredUsage": _USAGE,
    "SavingsPlanNegation": _USAGE,
    "FlatRateSubscription": _AGAIN,
    "Recurring": _AGAIN,
    "RIFee": _AGAIN,
    "SavingsPlanRecurringFee": _AGAIN,
    "Upfront": _ONCE,
    "SavingsPlanUpfrontFee": _ONCE,
    "Fee": _ONCE,
    "Subscription": _AGAIN,
    "Support": _AGAIN,
    "Tax": Record("Tax"),
    "Credit": Record("Credit"),
    "Refund": Record("Adjustment", correction=True),
    "BundledDiscount": _DISCOUNT,
    "Discount": _DISCOUNT,
    "EdpDiscount": _DISCOUNT,
    "Enterprise Discount Program Discount": _DISCOUNT,
    "PrivateRateDiscount": _DISCOUNT,
    "Private Rate Card Discount": _DISCOUNT,
    "RiVolumeDiscount": _DISCOUNT,
    "RI Volume Discount": _DISCOUNT,
    "SppDiscount": _DISCOUNT,
    "Solution Provider Program Discount": _DISCOUNT,
}
"""By the words of Cost Explorer's RECORD_TYPE and of the usage report's line item types. AWS has no
whole list of them (unsourced): what is not here is an ``Adjustment``, FOCUS's word for what falls
into no other category, and keeps its name in ``x_RecordType``. ``SavingsPlanNegation`` takes back what
covered usage would have cost on demand: with it, usage adds up to what is billed."""
UNKNOWN = Record("Adjustment")

OF_USAGE = tuple(name for name, record in RECORDS.items() if record.category == "Usage")


class AWSOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to reach an account. Subclass it for further options."""

    profile: str = ""
    """Of boto3's configuration."""
    role: str = ""
    """The ARN of a role to assume, with the profile's credentials."""
    profiles: tuple[str, ...] = ()
    """Several accounts, each by a profile; they are pulled beside each other."""
    roles: tuple[str, ...] = ()
    """Several accounts, each by a role."""
    region: str = ""
    endpoint_url: str = ""
    record_types: Mapping[str, str] = {}
    """ChargeCategory of FOCUS for record types that are not known here, or otherwise."""


class AWSPuller(Puller):
    """Asks one account with boto3."""

    provider = PROVIDER
    dependencies = "costinsights[botocore] boto3"
    options: Any

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._clients: dict[str, Any] = {}
        self._session: Any = None

    def accounts(self) -> tuple[Puller, ...]:
        """Return a puller for each profile and role; the one itself where there is but one."""
        options: AWSOptions = self.options
        if not options.profiles and not options.roles:
            return (self,)
        alone = {"profiles": (), "roles": ()}
        each = [{"profile": profile} for profile in options.profiles]
        each += [{"role": role} for role in options.roles]
        return tuple(self._like(**alone, **one) for one in each)

    def _like(self, **changed: object) -> Puller:
        """Return another puller that differs in some options."""
        given = msgspec.structs.asdict(self.options)
        return type(self)({**given, **changed})

    def record(self, name: str) -> Record:
        """Return what a record type is."""
        given = self.options.record_types.get(name)
        return RECORDS.get(name, UNKNOWN) if given is None else Record(given)

    # -- clients --------------------------------------------------------------------------------

    def connect(self) -> None:
        """Make the session.

        Raises:
            PullError: boto3 is missing, there is no such profile, or the role cannot be assumed.
        """
        try:
            library: Any = import_module("boto3")
        except ImportError:
            raise PullError(f"{self.system}: run  pip install {self.dependencies}") from None
        options: AWSOptions = self.options
        try:
            self._session = library.Session(profile_name=options.profile or None)
        except Exception as error:  # noqa: BLE001  botocore's, which is imported by boto3 only
            raise PullError(f"{self.system}: {error}") from None
        if options.role:
            self._session = self._assumed(library, options.role)

    def _assumed(self, library: Any, role: str) -> Any:
        answer = patiently(
            self,
            f"AssumeRole {role}",
            lambda: self.client("sts").assume_role(RoleArn=role, RoleSessionName="costinsights"),
            grant=f'{{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "{role}"}}',
        )
        self._hang_up()
        found = answer["Credentials"]
        return library.Session(
            aws_access_key_id=found["AccessKeyId"],
            aws_secret_access_key=found["SecretAccessKey"],
            aws_session_token=found["SessionToken"],
        )

    def client(self, service: str) -> Any:
        """Return a client that tries nothing again by itself: `patiently` does, and counts."""
        if service not in self._clients:
            config: Any = import_module("botocore.config")
            self._clients[service] = self._session.client(
                service,
                region_name=self.options.region or self._session.region_name or "us-east-1",
                endpoint_url=self.options.endpoint_url or None,
                config=config.Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=TIMEOUT_SECONDS,
                    read_timeout=TIMEOUT_SECONDS,
                ),
            )
        return self._clients[service]

    def renew(self) -> None:
        """Connect anew: the credentials have expired half-way."""
        self._hang_up()
        self.connect()

    def close(self) -> None:
        """Hang up."""
        self._hang_up()

    def _hang_up(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def caller(self) -> str:
        """Return the account that the credentials are of; nobody needs a permission for that."""
        ask: Callable[[], Any] = lambda: self.client("sts").get_caller_identity()  # noqa: E731  the client may be another the next time
        return str(patiently(self, "GetCallerIdentity", ask)["Account"])
