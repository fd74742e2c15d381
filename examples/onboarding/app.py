"""Onboarding of a new customer: a small workflow with everything that can go wrong in it.

Each step is an ordinary function. ``askel`` records what it returned, tries it again when it
fails, and goes on after a crash without repeating what was recorded.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import anyio

from askel import App, Run, StepContext

app = App("onboarding")


@dataclass
class Customer:
    """One line of customers.csv; the address is enough."""

    email: str
    name: str = ""
    company: str = ""
    country: str = ""
    plan: str = "team"
    seats: int = 1


@dataclass
class Account:
    """What the accounts service answered."""

    id: str
    email: str


@app.step
async def create_account(customer: Customer, ctx: StepContext) -> Account:
    """Create the account; the idempotency key makes a repeated call harmless."""
    await anyio.sleep(0.05)
    return Account(id=f"acc-{ctx.idempotency_key[:8]}", email=customer.email)


@app.step(retries=8, retry_delay="50ms")
async def charge_card(customer: Customer, ctx: StepContext) -> dict[str, str | int]:
    """Charge the first month; the payment provider fails one call in four."""
    await anyio.sleep(0.08)
    # Seeded, so that every demonstration meets the same failures.
    if random.Random(f"{ctx.run_id}{ctx.attempt}").random() < 0.25:
        msg = "the payment provider did not answer"
        raise ConnectionError(msg)
    return {"receipt": ctx.idempotency_key[:13], "cents": 900 * customer.seats}


@app.step
async def provision(what: str) -> str:
    """Set up one service for the customer."""
    await anyio.sleep(0.06)
    return f"{what} ready"


@app.step
def send_welcome(account: Account) -> str:
    """Send the welcome mail. Not async: it runs in a thread."""
    return f"welcome mail sent to {account.email}"


@app.workflow
async def onboarding(run: Run, customer: Customer) -> dict[str, object]:
    """Onboard one customer."""
    account = await run.do("create account", create_account, customer)
    receipt = await run.do("charge card", charge_card, customer)
    services = await run.gather(
        run.do("provision mailbox", provision, "mailbox"),
        run.do("provision storage", provision, "storage"),
        run.do("provision dashboard", provision, "dashboard"),
    )
    await run.sleep("settle", "500ms")
    message = await run.do("send welcome", send_welcome, account)
    return {"account": account.id, "receipt": receipt, "services": services, "message": message}
