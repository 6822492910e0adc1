"""Tables of the Chinese pages: the numbers of the English ones under Chinese headings."""

from __future__ import annotations

import re
from collections.abc import Callable

from aerofuse.common.markdown import markdown_table

WORDS = {
    "": "",
    # columns
    "single-task": "单任务",
    "multi-task": "多任务",
    "hybrid": "混合模型",
    "constant predictor": "常数预测",
    "labelled images": "有标注的图片",
    "gate": "门槛项",
    "measured": "实测",
    "threshold": "门槛",
    "status": "结论",
    "seed": "种子",
    "metric": "指标",
    "multi-task type top-1": "多任务机型 top-1",
    "hybrid type top-1": "混合模型机型 top-1",
    "gain, points": "提升（百分点）",
    "95 % interval over test images": "测试图片的 95 % 区间",
    # rows
    "type top-1": "机型 top-1",
    "type top-1, clarity > 0.9": "机型 top-1（清晰度 > 0.9）",
    "type ECE": "机型 ECE",
    "airline ECE": "航空公司 ECE",
    "type top-5": "机型 top-5",
    "type macro-F1": "机型 macro-F1",
    "airline top-1": "航空公司 top-1",
    "clarity MAE": "清晰度 MAE",
    "clarity RMSE": "清晰度 RMSE",
    "clarity PLCC": "清晰度 PLCC",
    "clarity SRCC": "清晰度 SRCC",
    "block MAE": "遮挡 MAE",
    "block RMSE": "遮挡 RMSE",
    "block PLCC": "遮挡 PLCC",
    "block SRCC": "遮挡 SRCC",
    "parameters": "参数量",
    "latency, batch 1": "延迟（批大小 1）",
    "latency, 95th percentile": "延迟（95 百分位）",
    "training time": "训练时间",
    "views of each photo": "每张照片的观看次数",
    "images seen per second": "每秒观看图片数",
    "peak training memory": "训练显存峰值",
    "type top-1 over multi-task": "机型 top-1 高于多任务",
    "peak training memory, batch 16, base": "训练显存峰值（base，批大小 16）",
    # verdicts
    "pass": "通过",
    "**fail**": "**未通过**",
    "not measurable here": "此处无法测量",
    # photos
    "run": "运行",
    "time": "时间",
    "photos read": "读取的照片",
    "read before": "重复读取",
    "read per second": "每秒读取",
    "most memory": "内存峰值",
    "of its own process": "其中主进程",
    "killed half way": "中途被杀掉",
    "started again": "再次启动",
    "after one label was changed": "改动一个标注之后",
    "fingerprints": "哈希数",
    "bits": "哈希位",
    "radius": "最多相差的位数",
    "all pairs": "所有照片对",
    "index": "索引",
    "times faster": "加快倍数",
    "the same pairs": "照片对相同",
    "way": "方式",
    "images per second": "每秒图片数",
    "prepared split": "处理好的划分",
    "Pillow on the files": "用 Pillow 读取文件",
    "loaded per second": "每秒加载",
    "of one file": "相对于单个文件",
    "trained per second": "每秒训练",
    "one file": "单个文件",
    "shards here": "本机上的分片",
    "shards of a store, all in the cache": "对象存储中的分片，全部在缓存里",
    "shards of a store, none in the cache": "对象存储中的分片，缓存为空",
    "half in the cache, a quarter shuffled at a time": "一半在缓存里，每次打乱四分之一",
    "half in the cache, all shuffled": "一半在缓存里，全部一起打乱",
    # photographs
    "model": "模型",
    "backbones": "骨干网络",
    "weights": "权重",
    "image": "图片",
    "seconds of training": "训练秒数",
    "busy elsewhere": "其他程序的占用",
    "type top-1 compared": "机型 top-1 的比较",
    "difference": "差",
    "95 % interval (bootstrap)": "95 % 区间（bootstrap）",
    "multi-task: bundled weights over random": "多任务：自带权重减随机权重",
    "bundled weights: hybrid over multi-task": "自带权重：混合模型减多任务",
    "single-task: package over bundled weights": "单任务：包的权重减自带权重",
    "package weights, 96 px: hybrid over multi-task": "包的权重，96 px：混合模型减多任务",
    # training
    "stage": "阶段",
    "seconds of saving": "保存秒数",
    "share": "比例",
    "all": "全部",
    "fault": "故障",
    "times": "次数",
    "second": "时刻（秒）",
    "epochs done, at most": "最多已完成的轮数",
    "went on after": "从哪里继续（轮）",
    "done twice, at most": "最多重做的轮数",
    "state cut short after kill -9": "kill -9 之后状态被截断",
    "state cut short after kill -15": "kill -15 之后状态被截断",
    # gradient checkpointing
    "family": "家族",
    "variants": "变体数",
    "measured on": "测量的网络",
    "promised": "承诺",
    "recompute_all: saves / time": "recompute_all：节省 / 时间",
    "selective: saves / time": "selective：节省 / 时间",
    "segments=4: saves / time": "segments=4：节省 / 时间",
    "timm's switch: saves / time": "timm 的开关：节省 / 时间",
    "planned, least: saves / time": "计划，显存最少：节省 / 时间",
    "batch": "批大小",
    "gradients": "梯度",
    "buffers": "缓冲区",
    "differ, planned": "不同：计划",
    "differ, segments=4": "不同：segments=4",
    "differ, recompute_all": "不同：recompute_all",
    "differ, timm's switch": "不同：timm 的开关",
    "nothing": "无",
    # any network
    "library": "库",
    "networks": "网络数",
    "exact": "精确",
    "exact, by units only": "精确，只按单元",
    "exact, not planned": "精确，没有计划",
    "not exact": "不精确",
    "fails": "失败",
    "cannot be tried": "不能试验",
}
_LEFT_OUT = ("note",)  # sentences
_TABLE = re.compile(r"(?:^\|.*\|$\n?)+", re.MULTILINE)


def chinese_tables(block: str) -> list[str]:
    """Return the Markdown tables of a block, with headings and first columns in Chinese, without what holds sentences.

    Raises `ValueError` for a heading or a row that `WORDS` does not know.
    """
    return [_translate(_cells(table), _word) for table in _TABLE.findall(block)]


def chinese_headings(block: str) -> str:
    """Return a block with its tables in Chinese, as far as `WORDS` has the words. All else stays as it is."""
    return _TABLE.sub(lambda found: _translate(_cells(found[0]), _word_or_same) + "\n", block).rstrip("\n")


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]


def _translate(lines: list[list[str]], word: Callable[[str], str]) -> str:
    header, rule, *rows = lines
    columns = [number for number, name in enumerate(header) if name not in _LEFT_OUT]
    align = "".join("r" if rule[number].endswith(":") else "l" for number in columns)
    translated = [
        [word(row[number]) if number == columns[0] else _word_or_same(row[number]) for number in columns]
        for row in rows
    ]
    return markdown_table([word(header[number]) for number in columns], translated, align)


def _word(text: str) -> str:
    if text not in WORDS and not re.fullmatch(r"[\d.%+ -]+", text):
        raise ValueError(f"README.zh-CN.md has no word for {text!r}; add it to tools.chinese")
    return _word_or_same(text)


def _word_or_same(text: str) -> str:
    return WORDS.get(text, text)
