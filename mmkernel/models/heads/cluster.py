"""Predict the cluster of an image from each of its views."""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels.sphere import unit_rows
from mmkernel.losses import clustering
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import PATIENCE, Head
from mmkernel.models.joint_embedding import require_width
from mmkernel.models.memory import EpochMemory, SampleLabels
from mmkernel.registry import MODELS


@MODELS.register_module()
class ClusterHead(Head):
    """mean over heads and views of the cross-entropy of scores / temperature against the label of the image.

    classifier='centroids': scores z^.c_k, the centroids without gradient, from spherical k-means on the embeddings of the
    last epoch (Caron et al., NeurIPS 2020). 'linear': scores W z + b, learned for labels made outside (Caron et al., ECCV
    2018). ``ClusterHook`` says when. Labels and centroids are in every checkpoint; -100 marks images without a label.

    Args:
        num_clusters: K of each head.
        temperature, in_dim: of the scores; width of the embeddings.
        normalize: embeddings to the sphere first; 'centroids' needs it.
        classifier: 'centroids' or 'linear'.
        memory_views: online positions that 'centroids' remembers; head h clusters entry h modulo their number.
    """

    needs_sample_index = True

    def __init__(
        self,
        num_clusters: Sequence[int] = (3000, 3000, 3000),
        temperature: float = 0.1,
        in_dim: int | None = None,
        normalize: bool = True,
        classifier: str = 'centroids',
        memory_views: Sequence[int] = (0, 1),
    ) -> None:
        super().__init__()
        self.in_dim = require_width(self, in_dim)
        check_numbers('ClusterHead', temperature=temperature)
        check_numbers('ClusterHead', whole=True, several=True, least=2, num_clusters=num_clusters)
        check_words('ClusterHead', classifier=(classifier, ('centroids', 'linear')))
        if classifier == 'centroids' and not normalize:
            raise ValueError(
                "ClusterHead.classifier='centroids' goes with normalize=True: centroids live on the sphere."
            )
        self.num_clusters, self.temperature = tuple(num_clusters), temperature
        self.normalize, self.learned = normalize, classifier == 'linear'
        self.classifiers = nn.ModuleList(nn.Linear(in_dim, K, bias=self.learned) for K in self.num_clusters)
        self.classifiers.requires_grad_(self.learned)
        self.reset_classifiers()
        self.pseudo, self.memory = SampleLabels(len(self.num_clusters)), EpochMemory(memory_views)
        self._staged: deque[tuple[Tensor, Tensor]] = deque(maxlen=PATIENCE)  # bounded, in case commit is never called

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        z = self._points(embeddings.online)  # (V, B, q)
        scores = [classifier(z) / self.temperature for classifier in self.classifiers]  # heads x (V, B, K)
        pairs = list(zip(scores, self.pseudo.of(embeddings.sample_index), strict=True))  # labels (B,) of each head
        entropy = torch.stack([clustering.cluster_cross_entropy(*pair) for pair in pairs]).mean()
        accuracy = torch.stack([clustering.cluster_accuracy(*pair) for pair in pairs]).mean()
        if not self.learned and self.expect_commit():
            self._staged.append(self.memory.gathered(embeddings.sample_index, z.detach()))
        return {'loss_cluster': entropy, 'cross_entropy': entropy.detach(), 'accuracy': accuracy}

    def commit(self, real: Tensor | None = None) -> None:
        """The embeddings of this step into the memory."""
        super().commit()
        for index, rows in self._staged:
            self.memory.write(index, rows, real)
        self._staged.clear()

    def prepare(self, num_samples: int) -> None:
        """Before the run: labels (none yet) and memory as large as the data set."""
        clustering.check_enough_samples(num_samples, max(self.num_clusters))
        self.pseudo.prepare(num_samples)
        if not self.learned:
            self.memory.prepare(num_samples, like=self.classifiers[0].weight)

    def remember(self, embeddings: Embeddings) -> None:
        """Into the memory without a step: the pass before the first epoch."""
        self.memory.write(*self.memory.gathered(embeddings.sample_index, self._points(embeddings.online)))

    def cluster(self, generator: Generator, iterations: int = 10) -> None:
        """Spherical k-means of the memory from random rows; its centroids become the classifiers. Clears the memory."""
        for h, (classifier, K) in enumerate(zip(self.classifiers, self.num_clusters, strict=True)):
            rows = self.memory.rows(h)
            centroids, labels = clustering.spherical_kmeans(
                rows, clustering.random_rows(rows, K, generator), iterations
            )
            classifier.weight.data.copy_(centroids)
            self.pseudo.set(h, self.memory.index(), labels)
        self.memory.clear()

    def reset_classifiers(self, generator: Generator | None = None) -> None:
        """W ~ N(0, .01^2), b = 0. Drawn on the CPU, so that all devices get the same."""
        for parameter in self.classifiers.parameters():
            if parameter.ndim == 1:
                parameter.data.zero_()
            elif not parameter.is_meta:
                parameter.data.copy_(torch.empty(parameter.shape, device='cpu').normal_(0, 0.01, generator=generator))

    def _points(self, z: Tensor) -> Tensor:
        return unit_rows(z) if self.normalize else z
