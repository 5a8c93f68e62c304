"""Writers of KakaoTalk exports, one per app, from the description of the formats; independent of the reader.

A chat is a list of (moment, name, text). A name of `APP` marks a line of the app itself, which every app writes in its
own way: the PC app without time, Android after a comma, iOS after a colon, macOS in the row of whom it is about.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import datetime

APP = "\0app"
Spoken = tuple[datetime, str, str]
DAYS = "월화수목금토일"


def half(moment: datetime) -> str:
    return f"{'오전' if moment.hour < 12 else '오후'} {(moment.hour + 11) % 12 + 1}:{moment.minute:02}"


def as_pc(chat: Sequence[Spoken]) -> bytes:
    return pc(chat, lambda day: f"{day.year}년 {day.month}월 {day.day}일 {DAYS[day.weekday()]}요일", half)


def as_english_pc(chat: Sequence[Spoken]) -> bytes:
    return pc(chat, lambda day: f"{day:%A, %B} {day.day}, {day.year}", lambda moment: f"{moment:%H:%M}")


def pc(chat: Sequence[Spoken], day_text: Callable[[datetime], str], clock: Callable[[datetime], str]) -> bytes:
    lines, day = ["산책 모임 님과 카카오톡 대화", "저장한 날짜 : 2024-03-09 10:00:00", ""], None
    for moment, name, text in chat:
        if moment.date() != day:
            day = moment.date()
            lines.append(f"--------------- {day_text(moment)} ---------------")
        lines += (text if name == APP else f"[{name}] [{clock(moment)}] {text}").split("\n")
    return "".join(f"{line}\r\n" for line in lines).encode()


def as_android(chat: Sequence[Spoken]) -> bytes:
    def stamp(moment: datetime) -> str:
        return f"{moment.year}년 {moment.month}월 {moment.day}일 {half(moment)}"

    return phone(
        chat, "산책 모임 3 님과 카카오톡 대화\r\n저장한 날짜 : 2024년 3월 9일 오전 10:00\n\r\n", stamp, stamp, ","
    )


def as_ios(chat: Sequence[Spoken]) -> bytes:
    def day_text(day: datetime) -> str:
        return f"{day.year}년 {day.month}월 {day.day}일 {DAYS[day.weekday()]}요일"

    return phone(chat, IOS_HEAD, dotted, day_text, ":")


def as_ios_2025(chat: Sequence[Spoken]) -> bytes:
    def day_text(day: datetime) -> str:
        return f"{day.year}. {day.month}. {day.day}. {DAYS[day.weekday()]}요일"

    return phone(chat, IOS_HEAD, dotted, day_text, ":")


def as_canadian_android(chat: Sequence[Spoken]) -> bytes:
    def stamp(moment: datetime) -> str:
        clock = f"{(moment.hour + 11) % 12 + 1}:{moment.minute:02}\u202f{'a.m.' if moment.hour < 12 else 'p.m.'}"
        return f"{moment:%B} {moment.day}, {moment.year} at {clock}"

    head = "KakaoTalk Chats with Haneul\r\nDate Saved : January 5, 2026 at 3:10\u202fp.m.\r\n\r\n"
    return phone(chat, head, stamp, stamp, ",")


IOS_HEAD = "산책 모임 (3명)과 카카오톡 대화-1.txt\r\n저장한 날짜 : 2024. 3. 9. 오전 10:00\r\n\r\n\r\n"


def dotted(moment: datetime) -> str:
    return f"{moment.year}. {moment.month}. {moment.day}. {half(moment)}"


def phone(
    chat: Sequence[Spoken],
    head: str,
    stamp: Callable[[datetime], str],
    day_text: Callable[[datetime], str],
    mark: str,
) -> bytes:
    text, day = head, None
    for moment, name, said in chat:
        if moment.date() != day:
            day = moment.date()
            text += f"\r\n{day_text(moment)}\r\n"
        if name == APP:
            text += f"{stamp(moment)}{mark} {said}\r\n"
        else:
            text += f"{stamp(moment)}, {name} : {said}\r\n"
    return text.encode("utf-8-sig")


def as_mac(chat: Sequence[Spoken]) -> bytes:
    stream = io.StringIO(newline="")
    stream.write("Date,User,Message\n")
    for moment, name, text in chat:
        row = [text.partition("님")[0] if name == APP else name, text]
        stream.write(f"{moment:%Y-%m-%d %H:%M:%S},")
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(row)
    return stream.getvalue().encode()


FORMATS: dict[str, Callable[[Sequence[Spoken]], bytes]] = {
    "pc.txt": as_pc,
    "english_pc.txt": as_english_pc,
    "android.txt": as_android,
    "canadian_android.txt": as_canadian_android,
    "ios.txt": as_ios,
    "ios_2025.txt": as_ios_2025,
    "mac.csv": as_mac,
}


def names_end_clearly(chat: Sequence[Spoken], known: Sequence[str] = ()) -> bool:
    """Whether no name could be read as longer: not all of somebody's messages go on with ` : ` in their first line."""
    texts: dict[str, list[str]] = {}
    for _, name, text in chat:
        if name != APP and name not in known:
            texts.setdefault(name, []).append(text.partition("\n")[0])
    return not any(len(each) > 1 and all(" : " in f"{text} " for text in each) for each in texts.values())
