"""The run store and the DataFrame made of it."""

from xpander_magics.store.store import Store as Store
