"""Tables of README.md for README.zh-CN.md: the same numbers under Chinese headings."""

from __future__ import annotations

import re

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
}
_LEFT_OUT = ("note",)  # sentences


def chinese_tables(block: str) -> list[str]:
    """Return the Markdown tables of a block, with headings and first columns in Chinese, without what holds sentences.

    Raises `ValueError` for a heading or a row that `WORDS` does not know.
    """
    tables = re.findall(r"(?:^\|.*\|\n?)+", block, re.MULTILINE)
    return [_translate(table) for table in tables]


def _translate(table: str) -> str:
    header, rule, *rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    columns = [number for number, name in enumerate(header) if name not in _LEFT_OUT]
    align = "".join("r" if rule[number].endswith(":") else "l" for number in columns)
    translated = [
        [_word(row[number]) if number == columns[0] else WORDS.get(row[number], row[number]) for number in columns]
        for row in rows
    ]
    return markdown_table([_word(header[number]) for number in columns], translated, align)


def _word(text: str) -> str:
    if text not in WORDS and not re.fullmatch(r"[\d.%+ -]+", text):
        raise ValueError(f"README.zh-CN.md has no word for {text!r}; add it to tools.chinese")
    return WORDS.get(text, text)
