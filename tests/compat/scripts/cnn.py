"""A small convolutional network that tells crosses, bars and boxes apart in noisy images of 12 x 12."""

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split

SIZE, CLASSES = 12, ("cross", "bar", "box")


def draw(kind, rng):
    image = 0.3 * rng.standard_normal((SIZE, SIZE))
    r, c = rng.integers(1, SIZE - 6, 2)
    if kind == 0:
        image[r + 2, c : c + 5] += 1
        image[r : r + 5, c + 2] += 1
    elif kind == 1:
        image[r : r + 2, c : c + 5] += 1
    else:
        image[[r, r + 4], c : c + 5] += 1
        image[r : r + 5, [c, c + 4]] += 1
    return image


def make_dataset(n, rng):
    labels = rng.integers(0, len(CLASSES), n)
    images = np.stack([draw(k, rng) for k in labels])[:, None]
    return TensorDataset(torch.from_numpy(images).float(), torch.from_numpy(labels).long())


def conv_block(cin, cout):
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv_block(1, 6), nn.MaxPool2d(2), conv_block(6, 12))
        self.conv3 = nn.Conv2d(12, 12, (3, 3), stride=1, groups=2)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.dropout1 = nn.Dropout(0.25)
        self.fc1 = nn.Linear(48, 24)
        self.fc2 = nn.Linear(24, len(CLASSES))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)

    def forward(self, x):
        x = self.features(x)
        x = F.avg_pool2d(F.relu(self.conv3(x)), kernel_size=2, stride=1)
        x = torch.flatten(self.pool(x), 1)
        x = F.relu(self.fc1(x))
        return F.log_softmax(self.fc2(x), dim=1)


def train(model, device, train_loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        data, target = data.to(device, non_blocking=True), target.to(device)
        optimizer.zero_grad()
        output = model(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if batch_idx % 2 == 0:
            done = 100.0 * batch_idx / len(train_loader)
            print(
                f"Epoch: {epoch} [{batch_idx * len(data)}/{len(train_loader.dataset)} ({done:.0f}%)]\tLoss: {loss.item():.5f}"
            )


def test(model, device, test_loader):
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for data, target in test_loader:
            data, target = data.to(device), target.to(device)
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            pred = output.argmax(dim=1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    n = len(test_loader.dataset)
    print(f"Test: average loss {test_loss / n:.4f}, accuracy {correct}/{n}")


def main():
    use_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if use_cuda else "cpu")
    torch.manual_seed(1)
    if use_cuda:
        torch.backends.cudnn.deterministic = True
        torch.cuda.nothing_of_this_name_is_ever_reached()
    rng = np.random.default_rng(1)
    whole = make_dataset(160, rng)
    parts = random_split(whole, [128, 32], generator=torch.Generator().manual_seed(0))
    assert isinstance(parts[0], Subset) and sorted([*parts[0].indices, *parts[1].indices]) == list(range(160))
    train_set, test_set = Subset(whole, range(128)), Subset(whole, range(128, 160))
    kwargs = {"num_workers": 0, "pin_memory": use_cuda}
    train_loader = DataLoader(train_set, batch_size=32, shuffle=False, **kwargs)
    test_loader = DataLoader(test_set, batch_size=16, **kwargs)
    model = Net().to(device)
    state = {
        k: torch.from_numpy(0.3 * rng.standard_normal(tuple(v.shape)))
        for k, v in model.state_dict().items()
        if k.startswith(("conv3", "fc")) or k.endswith("0.weight")
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    print(f"{len(unexpected)} unknown of {len(state)}, {'fc2.bias' in missing}")
    print(f"trainable: {sum(p.numel() for p in model.parameters() if p.requires_grad):,}")
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    scheduler = StepLR(optimizer, step_size=2, gamma=0.7)
    for epoch in range(1, 5):
        train(model, device, train_loader, optimizer, epoch)
        test(model, device, test_loader)
        scheduler.step()


if __name__ == "__main__":
    main()
