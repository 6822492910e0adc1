"""How names of classes and airframes are compared: by how they look, and by whether they say anything."""

from __future__ import annotations

import re
import unicodedata

# Letters of which one case looks like a Latin letter (of Unicode's confusables those on keyboards), and signs.
_ALIKE = str.maketrans(
    "авсԁенһіјкморԛѕтѵԝхуүαβεζηικμνορτυχϳ−⁃‘’‛ʼ′`“”„«»⁄∕",  # noqa: RUF001
    "abcdehhijkmopqstvwxyyabezhikmnoptyxj--''''''\"\"\"\"\"//",
)
# What shows nothing and is no blank: characters of format (Cf), fillers and variation selectors.
_FILLERS = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Programs and people write these into cells that have no value. As names they would be a class, or an airframe that
# many photos share. Without accents, blanks and punctuation; English, German, French, Spanish, Chinese, Japanese.
_WORDS_FOR_NOTHING = frozenset(
    """
    na nan nil none null unknown unk unidentified undefined unspecified notavailable notapplicable notknown notspecified
    nodata missing empty blank tbd tobedetermined
    unbekannt unklar unbestimmt nichtbekannt nichtverfugbar nichtvorhanden keine keiner keines keineangabe keineangaben
    fehlt leer
    inconnu inconnue aucun aucune neant indetermine nonrenseigne nonspecifie nondisponible nonapplicable adeterminer
    desconocido desconocida ninguno ninguna sindatos nodisponible noaplica noespecificado indeterminado pordeterminar
    未知 未定 未填 未填写 未识别 未確認 未入力 未設定 无 無 无数据 无法识别 暂无 暫無 没有 待定 待查 待确认 待补充
    不明 不详 不詳 不清楚 不知道 不适用 空 空白 缺失 なし 無し 該当なし 該当無し
    """.split()  # noqa: SIM905
)
# Short ones are names too, such as KA of Dragonair, so these need their points or strokes; errors of spreadsheets.
_SIGNS_FOR_NOTHING = re.compile(r"([nk][./][acdkrv]|s[./][dno]|t\.b\.[acd])\.?|#.*[!?]|#n/?[adv]|err:\d+")


def fold(name: str) -> str:
    """Return what two spellings of one name share: no case, blank, invisible character or look-alike of another."""
    text = unicodedata.normalize("NFKC", _FILLERS.sub("", name)).casefold().translate(_ALIKE)
    kinds = ((letter, unicodedata.category(letter)) for letter in text if not letter.isspace())
    return "".join("-" if kind == "Pd" else letter for letter, kind in kinds if kind != "Cf")


def says_nothing(text: str) -> bool:
    """Return whether a cell holds a word for nothing, such as `n.a.`, `#VALUE!` or `未知`, or no letter and digit."""
    plain = fold(text)
    letters = "".join(letter for letter in unicodedata.normalize("NFKD", plain) if letter.isalnum())
    words = {unicodedata.normalize("NFC", letters)}
    return not letters or not words.isdisjoint(_WORDS_FOR_NOTHING) or _SIGNS_FOR_NOTHING.fullmatch(plain) is not None


def odd_characters(name: str, others: str) -> str:
    """Return `, with U+2013 EN DASH` for what is in `name` and not in `others`, beyond ASCII; else nothing."""
    odd = [letter for letter in dict.fromkeys(name) if not letter.isascii() and letter not in others]
    named = (f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".rstrip() for letter in odd)
    return f", with {' and '.join(named)}" if odd else ""
