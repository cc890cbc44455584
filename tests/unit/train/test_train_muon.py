import pytest
import torch

from xuebu.train.adagrad import RowAdagrad
from xuebu.train.muon import Muon, orthogonalize


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(32, 32), (64, 32), (32, 96)])
def test_updates_are_those_of_torch(shape):
    mine, theirs = (torch.nn.Parameter(draw(*shape)) for _ in range(2))
    ours = Muon([mine], lr=0.02, momentum=0.9, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.1, nesterov=True, eps=1e-7)
    for step in range(4):
        before = mine.detach().clone()
        mine.grad = theirs.grad = draw(*shape, seed=step + 1)
        ours.step()
        reference.step()
        gap, change = (mine - theirs).detach().norm(), (mine - before).detach().norm()
        assert 0.5 < float(change) / (0.02 * min(shape) ** 0.5 * max(1, shape[0] / shape[1]) ** 0.5) < 2.0
        assert float(gap) < 0.02 * float(change) * (step + 1)  # both in bfloat16, in another order


def test_singular_values_come_near_one():
    stack = torch.stack([draw(48, 20, seed=seed) for seed in range(3)])
    stack[1] *= 1e-6
    values = torch.linalg.svdvals(orthogonalize(stack))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.25
    left, _, right = torch.linalg.svd(stack[0], full_matrices=False)
    assert (
        float(torch.nn.functional.cosine_similarity(orthogonalize(stack)[0].flatten(), (left @ right).flatten(), 0))
        > 0.98
    )


def test_zero_gradients_are_no_update():
    weight = torch.nn.Parameter(draw(8, 8))
    before = weight.detach().clone()
    optimizer = Muon([weight], lr=0.1, momentum=0.9)
    weight.grad = torch.zeros(8, 8)
    optimizer.step()
    assert torch.equal(weight, before)
    weight.grad = None
    optimizer.step()
    assert torch.equal(weight, before)


def test_parts_are_made_orthogonal_by_themselves():
    joined = torch.nn.Parameter(draw(24, 8))
    alone = [torch.nn.Parameter(part.clone()) for part in joined.detach().chunk(3)]
    gradient = draw(24, 8, seed=1)
    joined.grad = gradient
    for one, part in zip(alone, gradient.chunk(3), strict=True):
        one.grad = part
    Muon([joined], lr=0.1, momentum=0.9, parts={joined: 3}).step()
    Muon(alone, lr=0.1, momentum=0.9).step()
    torch.testing.assert_close(joined.detach(), torch.cat([one.detach() for one in alone]), atol=2e-3, rtol=0)


def test_row_adagrad_is_written_out():
    table = torch.nn.Parameter(draw(50, 6))
    dense = torch.nn.Parameter(table.detach().clone())
    expected, sums = table.detach().double(), torch.zeros(50, dtype=torch.float64)
    sparse_optimizer, dense_optimizer = RowAdagrad([table], lr=0.1), RowAdagrad([dense], lr=0.1)
    for step in range(3):
        rows = torch.randint(0, 20, (15,), generator=torch.Generator().manual_seed(step))  # some twice
        values = draw(15, 6, seed=step) * 1e-4
        table.grad = torch.sparse_coo_tensor(rows[None], values, (50, 6), check_invariants=True)
        dense.grad = table.grad.to_dense()
        sparse_optimizer.step()
        dense_optimizer.step()
        gradient = dense.grad.double()
        sums += gradient.square().mean(1)
        seen = sums > 0
        expected[seen] -= 0.1 * gradient[seen] / sums[seen].sqrt()[:, None]
        torch.testing.assert_close(table.detach().double(), expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(dense.detach().double(), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(table.detach()[20:], draw(50, 6)[20:])
