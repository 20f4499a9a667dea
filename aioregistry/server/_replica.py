"""The state of one server: the tree that its reads see, up to which transaction, and who watches it."""

from __future__ import annotations

from aioregistry.server import _acl as access
from aioregistry.server import _requests as requests
from aioregistry.server._connection import Connection
from aioregistry.server._history import Transaction
from aioregistry.server._profiles import Profile
from aioregistry.server._tree import Tree
from aioregistry.server._watches import Watches


class Replica:
    """A tree, and the watches of the clients that are connected here.

    Args:
        profile: of the release to behave like.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile: Profile = profile
        self.tree: Tree = Tree()
        self.zxid: int = 0
        self.watches: Watches[Connection] = Watches(profile)

    def begin(self, tree: Tree, zxid: int) -> None:
        """Have this tree from now on, which is that of the transaction *zxid*."""
        self.tree = tree
        self.zxid = zxid

    def tell(self, transaction: Transaction) -> None:
        """A transaction has been applied to the tree: tell of it who watches."""
        self.zxid = transaction.zxid
        zxid = transaction.zxid if self.profile.events_have_zxid else -1
        for change in transaction.changes:
            for connection, kind, path, acl in self.watches.trigger(change):
                if not self.profile.events_need_read or access.permits(acl, access.READ, connection.identities):
                    connection.send(requests.event(zxid, kind, path))
