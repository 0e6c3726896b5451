"""The tree: RFC 6962's hashing, with the vectors that Certificate Transparency publishes."""

import hashlib

import pytest

from distribu.adapters.verify_export import is_included
from distribu.domain.errors import Bug
from distribu.domain.sealing import Frontier, Tree, leaf, node

# The leaves, roots and proofs of the reference implementation's tests (`certificate-transparency`,
# `cpp/merkletree/merkle_tree_test.cc`), which follow section 2.1 of RFC 6962.
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
LEAVES = [leaf(it) for it in INPUTS]
ROOTS = """
6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d
fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125
aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77
d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7
4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4
76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef
ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c
5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328
""".split()
INCLUSION = [
    (0, 1, []),
    (0, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
    (5, 8, ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (1, 5, ["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"]),
]  # fmt: skip


def reference(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node(reference(leaves[:split]), reference(leaves[split:]))


def numbered(count: int) -> list[bytes]:
    return [leaf(str(number).encode()) for number in range(count)]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_rfc_6962(size: int) -> None:
    assert Frontier().extended(LEAVES[:size]).root.hex() == ROOTS[size - 1]
    assert Tree.of(LEAVES[:size]).root.hex() == ROOTS[size - 1]


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Frontier().root.hex() == Tree.of([]).root.hex() == nothing


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_inclusion_proofs_are_those_of_rfc_6962(index: int, size: int, path: list[str]) -> None:
    made = Tree.of(LEAVES[:size]).path(index)
    assert [it.hex() for it in made] == path
    assert is_included(LEAVES[index], index, size, made, ROOTS[size - 1])


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 100])
def test_every_place_of_every_tree_is_proven_and_nothing_else_is(size: int) -> None:
    leaves = numbered(size)
    root = reference(leaves)
    levels = Tree.of(leaves)
    assert levels.root == root == Frontier().extended(leaves).root
    for index in range(size):
        path = levels.path(index)
        assert is_included(leaves[index], index, size, path, root.hex())
        assert not is_included(leaf(b"other"), index, size, path, root.hex())
        assert not is_included(leaves[index], index, size, [*path, root], root.hex())
        assert not is_included(leaves[index], index + 1, size, path, root.hex())
        assert not path or not is_included(leaves[index], index, size, path[:-1], root.hex())


def test_a_frontier_goes_on_from_any_size_as_if_it_had_never_stopped() -> None:
    leaves = numbered(70)
    for stop in range(71):
        began = Frontier().extended(leaves[:stop])
        assert began.whole
        assert began.extended(leaves[stop:]) == Frontier().extended(leaves)


def test_a_leaf_is_never_taken_for_a_node() -> None:
    """Otherwise two records could be exchanged for one that holds their hashes (RFC 6962, 2.1)."""
    two = numbered(2)
    assert leaf(two[0] + two[1]) != node(*two)


@pytest.mark.parametrize("index", [-1, 8])
def test_no_proof_is_made_of_what_is_not_there(index: int) -> None:
    with pytest.raises(Bug):
        Tree.of(LEAVES).path(index)
