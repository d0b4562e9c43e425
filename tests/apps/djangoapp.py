"""A Django application with two databases, SQLite and PostgreSQL, and a view for each.

Run by tests/contract/test_apps.py; see script.py.
"""

# Django has no types.
# pyright: basic, reportAttributeAccessIssue=false

from __future__ import annotations

import os
import sys
from urllib.parse import unquote, urlsplit

import costinsights

if "--instrument" in sys.argv:
    costinsights.instrument()

import django
from django.conf import settings

from tests.apps.tracing import tell, tracer

URL = urlsplit(os.environ["APP_POSTGRES"])
settings.configure(
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
    DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"},
        "warehouse": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": URL.path[1:],
            "USER": unquote(URL.username or ""),
            "PASSWORD": unquote(URL.password or ""),
            "HOST": URL.hostname,
            "PORT": URL.port,
        },
    },
)
django.setup()

from django.db import connections, models  # noqa: E402  after the set-up
from django.http import HttpRequest, JsonResponse  # noqa: E402  after the set-up
from django.test import Client  # noqa: E402  after the set-up
from django.urls import path  # noqa: E402  after the set-up

TRACER = tracer("django")


class Order(models.Model):  # type: ignore[misc]  # Django has no types
    cents = models.IntegerField()

    class Meta:
        app_label = "shop"
        db_table = "django_orders"

    def __str__(self) -> str:
        return f"order of {self.cents}"


def view(request: HttpRequest, database: str) -> JsonResponse:
    """Store two orders and add up the dear ones."""
    name = f"GET {database}"
    with TRACER.start_as_current_span(name) as span, costinsights.attribute(asset=database):
        tell(name, span)
        orders = Order.objects.using(database)
        orders.bulk_create([Order(cents=250), Order(cents=990)])
        found = orders.filter(cents__gt=300).aggregate(total=models.Sum("cents"))
        connections[database].cursor().execute("SELECT 1 AS django_raw")
        return JsonResponse(found)


urlpatterns = [path("<str:database>", view)]

with costinsights.attribute(team="shop"):
    for alias in ("default", "warehouse"):
        with (
            costinsights.attribute(asset="schema"),
            connections[alias].schema_editor() as editor,
        ):
            editor.create_model(Order)
        try:
            assert Client().get(f"/{alias}").json() == {"total": 990}
        finally:
            with (
                costinsights.attribute(asset="schema"),
                connections[alias].schema_editor() as editor,
            ):
                editor.delete_model(Order)
