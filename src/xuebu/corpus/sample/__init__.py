"""The built-in sample: original short articles in simplified Chinese on 59 domains, free of any claim (CC0-1.0)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from xuebu.corpus.document import Document

_DOMAINS = (
    "中国姓氏 复姓 罕见姓氏 百家姓 中国地名 古代地名 郡县 州府 乡镇名 植物学名 动物学名 "
    "昆虫名 鸟类名 鱼类名 药用植物 中药材 草本植物 木本植物 矿物名称 宝石名称 化石名称 "
    "岩石名称 古代器物 青铜器名 陶瓷器 玉器名称 古代官职 科举制度 古代礼仪 中药方剂 穴位名称 "
    "经络名称 病症名称 诗经 尔雅 说文解字 康熙字典 古代典籍 文献名称 佛教术语 道教术语 "
    "寺庙名称 道观名称 古代建筑 宫殿名称 城池名称 园林名称 书法字体 篆刻印章 绘画技法 "
    "戏曲剧种 星宿名称 节气 干支 天文术语 纺织品名 工艺名称 乐器名称 兵器名称"
)


def _texts() -> list[Traversable]:
    folder = files("xuebu.corpus.sample").joinpath("texts")
    return sorted((file for file in folder.iterdir() if file.name.endswith(".txt")), key=lambda file: file.name)


def domains() -> tuple[str, ...]:
    """Return the domains that the sample has texts on, in its order."""
    return tuple(_domain_of(file) for file in _texts())


def _domain_of(file: Traversable) -> str:
    return _DOMAINS.split()[int(file.name[:2]) - 1]


def sample_documents() -> Iterator[Document]:
    """Yield the sample's articles: files by name (NN_domain.txt), articles in order; id "NN/k" with k from 1."""
    for file in _texts():
        articles = f"\n{file.read_text(encoding='utf-8')}".split("\n# ")[1:]
        for number, article in enumerate(articles, start=1):
            title, _, body = article.partition("\n")
            yield Document(
                id=f"{file.name[:2]}/{number}",
                title=title.strip(),
                group=title.strip(),
                text="\n".join(line for line in body.split("\n") if line),
                source="sample",
                script="hans",
                licence="CC0-1.0",
                domain=_domain_of(file),
            )
