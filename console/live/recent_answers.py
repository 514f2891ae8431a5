"""The last answers of each node, for the preview of a policy: plain methods without I/O."""

from collections import OrderedDict, deque

from msgspec import structs

from schemas.messages import Result

MAX_PER_NODE = 1000
MAX_ANSWERS = 50_000
"""Most answers of all nodes: about 40 MB; beyond, the node with the most loses its oldest."""
MAX_NODES = 1024


class RecentAnswers:
    """Answers by node, without their scores. Bounded: `MAX_PER_NODE`, `MAX_ANSWERS`, and `MAX_NODES`.

    A busy node takes nothing from a quiet one. Of more nodes, the one that was silent for longest makes room.
    """

    def __init__(self) -> None:
        self._by_node: OrderedDict[str, deque[Result]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Return the number of answers of all nodes."""
        return self._count

    def add(self, result: Result) -> None:
        """Keep an answer."""
        answers = self._by_node.setdefault(result.node, deque())
        answers.append(structs.replace(result, scores=None))
        self._by_node.move_to_end(result.node)
        self._count += 1
        if len(answers) > MAX_PER_NODE:
            self._drop_oldest(answers)
        if self._count > MAX_ANSWERS:
            self._drop_oldest(max(self._by_node.values(), key=len))
        if len(self._by_node) > MAX_NODES:
            self._count -= len(self._by_node.popitem(last=False)[1])

    def of(self, node: str) -> list[Result]:
        """Return the last answers of a node, oldest first."""
        return list(self._by_node.get(node, ()))

    def _drop_oldest(self, answers: deque[Result]) -> None:
        answers.popleft()
        self._count -= 1
