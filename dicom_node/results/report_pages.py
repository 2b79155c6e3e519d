"""The report as pages: result, scores, what was not analysed, pictures, and which model said so.

The same context gives the same bytes: no time of printing, no random identifier, built-in fonts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from xml.sax.saxutils import escape

from PIL import Image as Pictures
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.lib.utils import simpleSplit
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

from dicom_node.results import codes, wording
from dicom_node.results.context import ResultContext
from dicom_node.results.overlay_picture import has_overlay, overlay_picture
from dicom_node.results.printed_identity import printed_identity
from dicom_node.results.source import local_time, pixel_shape
from models.contract import ImageScore, Outcome

TITLE = "AI mammography report"

_MARGIN = 18 * mm
_FRAME_PADDING = 6
_WIDTH = A4[0] - 2 * _MARGIN - 2 * _FRAME_PADDING
_PICTURE_COLUMNS = 420
_PICTURES_ACROSS = 4
_TALLEST_PICTURE = 150 * mm  # less than a page, whatever the shape of an image

_GREY, _RULE_GREY = colors.HexColor("#444444"), colors.HexColor("#bbbbbb")
_FINE_PRINT = ("Helvetica", 8.5)
_BODY = ParagraphStyle("body", fontName="Helvetica", fontSize=10, leading=13.5)
_SMALL = ParagraphStyle("small", _BODY, fontSize=8.5, leading=11, spaceBefore=2, textColor=_GREY)
_BOLD = ParagraphStyle("bold", _BODY, fontName="Helvetica-Bold")
_HEADING = ParagraphStyle("heading", _BOLD, fontSize=11.5, spaceBefore=11, spaceAfter=3)
_TITLE = ParagraphStyle("title", _BOLD, fontSize=17, leading=22)
_CELLS = [
    ("LINEBELOW", (0, 0), (-1, -1), 0.4, _RULE_GREY),
    ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ("TOPPADDING", (0, 0), (-1, -1), 2),
    ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
]
_ROW = [("LEFTPADDING", (0, 0), (-1, -1), 0)]


def report_pages(context: ResultContext) -> bytes:
    """Write the report of a study as a PDF file, whatever came of its analysis.

    Parameters
    ----------
    context : ResultContext
        What to report; it needs renderings of the images with attention or marks.

    Returns
    -------
    bytes
        A PDF of A4 pages; the same whenever it is written again from the same context.

    Raises
    ------
    ResultError
        When an image to be drawn has no rendering.
    """
    buffer = BytesIO()
    document = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=TITLE,
        author="AI^Node",
        subject="Not verified by a radiologist",
        creator=context.node.software_version,
        # Without it every file bears the time of its making and a random identifier.
        invariant=1,
    )
    whose = "; ".join(f"{label} {text}" for label, text in printed_identity(context.sources[0]))
    document.build(
        [*_story(context)],
        onFirstPage=_footer,
        onLaterPages=lambda canvas, page: _header_and_footer(canvas, page, whose),
    )
    return buffer.getvalue()


def _story(context: ResultContext) -> Iterator[Flowable]:
    yield Paragraph(TITLE, _TITLE)
    yield _pairs(printed_identity(context.sources[0]))
    yield Paragraph("Result", _HEADING)
    first, *others = wording.impression(context)
    yield Paragraph(escape(first), _BOLD)
    yield from (Paragraph(escape(sentence), _BODY) for sentence in others)
    if context.prediction.images:
        yield Paragraph(f"Probability of {context.prediction.target}", _HEADING)
        yield _scores(context)
        yield Paragraph(
            "Score of a breast: mean of its views. Score of the study: the higher breast.", _SMALL
        )
    if sentences := wording.findings(context):
        yield Paragraph("Findings", _HEADING)
        yield from (Paragraph(escape(sentence), _BODY) for sentence in sentences)
    if context.prediction.refusals:
        yield Paragraph("Not analysed", _HEADING)
        yield _refusals(context)
    yield from _pictures(context)
    yield KeepTogether([Paragraph("Model and node", _HEADING), _pairs(_makers(context))])


def _pairs(pairs: Sequence[tuple[str, str]]) -> Flowable:
    rows = [[Paragraph(escape(label), _SMALL), Paragraph(escape(text), _SMALL)] for label, text in pairs]
    return Table(rows, colWidths=[34 * mm, _WIDTH - 34 * mm], style=_CELLS) if rows else Spacer(1, 0)


def _scores(context: ResultContext) -> Flowable:
    prediction = context.prediction
    images = {(score.laterality, score.view): score.probability for score in prediction.images}
    breasts = {breast.laterality: breast.probability for breast in prediction.breasts}
    study = "Study" if prediction.outcome is Outcome.SCORED else "Study, incomplete"
    rows = [(f"{side} {view}", images.get((side, view)), _BODY) for side, view in wording.STANDARD_VIEWS]
    rows += [(f"{name} breast", breasts.get(side), _BODY) for side, name in wording.SIDE_NAMES.items()]
    rows.append((study, prediction.study_probability, _BOLD))
    cells = [[Paragraph(text, _SMALL) for text in ("Image, breast or study", "Score and threshold")]]
    for label, probability, style in rows:
        said = "not analysed"
        if probability is not None:
            said = wording.compared(probability, prediction.threshold)
        cells.append([Paragraph(label, style), Paragraph(said, style)])
    return Table(cells, colWidths=[_WIDTH * 0.35, _WIDTH * 0.65], style=_CELLS)


def _refusals(context: ResultContext) -> Flowable:
    rows = [[Paragraph(text, _SMALL) for text in ("What and why", "The node's code; DICOM's code")]]
    for refusal in context.prediction.refusals:
        reason = codes.refusal_reason(refusal.code)
        code = f"{refusal.code}; {reason.scheme_designator} {reason.value} {reason.meaning}"
        sentence = f"{wording.refusal(context.prediction, refusal)}."
        rows.append([Paragraph(escape(sentence), _BODY), Paragraph(escape(code), _SMALL)])
    return Table(rows, colWidths=[_WIDTH * 0.55, _WIDTH * 0.45], style=_CELLS)


def _pictures(context: ResultContext) -> Iterator[Flowable]:
    shown = [s for s in context.prediction.images if has_overlay(context, s)]
    if not shown:
        return
    # All in one row, and a single one no wider than any other: the report stays one page.
    share = _WIDTH / max(_PICTURES_ACROSS, len(shown))
    note = "Small copies, not for diagnosis. Colours: where the AI model looked, most in red; not an outline."
    row = Table([[_picture(context, score, share - 3 * mm) for score in shown]], share, style=_ROW)
    row.hAlign = "LEFT"
    yield KeepTogether([Paragraph("Pictures", _HEADING), Paragraph(note, _SMALL), row])


def _picture(context: ResultContext, score: ImageScore, width: float) -> list[Flowable]:
    source = context.source(score.sop_instance_uid)
    picture = overlay_picture(context, score, max(1, int(source.Columns) // _PICTURE_COLUMNS))
    file = BytesIO()
    Pictures.fromarray(picture).save(file, "PNG")
    file.seek(0)
    down, across = pixel_shape(source)
    height = width * picture.shape[0] * down / (picture.shape[1] * across)
    share = min(1.0, _TALLEST_PICTURE / height)
    image = Image(file, width=width * share, height=height * share)
    image.hAlign = "LEFT"
    return [Paragraph(escape(wording.place(score)), _BOLD), image]


def _makers(context: ResultContext) -> list[tuple[str, str]]:
    bundle, node = context.bundle, context.node
    moment = local_time(context.sources[0], context.analysed_at, context.default_zone)
    return [
        ("Model", f"{bundle.name}, version {bundle.version}, of {bundle.manufacturer}"),
        ("Digest", bundle.digest),
        ("Device UID", context.device_uid),
        ("Node", f"{node.ae_title}, {node.serial_number}, {node.software_version}"),
        ("Analysed", f"{moment:%Y-%m-%d %H:%M:%S %z}, revision {context.revision}"),
    ]


def _header_and_footer(canvas: Canvas, document: SimpleDocTemplate, whose: str) -> None:
    """Say on a page of its own whose it is: pages of paper come apart."""
    _footer(canvas, document)
    lines = simpleSplit(whose, *_FINE_PRINT, _WIDTH)
    for number, line in enumerate(lines):
        canvas.drawString(_MARGIN + _FRAME_PADDING, A4[1] - 8 * mm - number * 4 * mm, line)


def _footer(canvas: Canvas, document: SimpleDocTemplate) -> None:
    canvas.setFont(*_FINE_PRINT)
    canvas.setFillColor(_GREY)
    canvas.drawString(
        _MARGIN + _FRAME_PADDING, 10 * mm, "AI - not verified by a radiologist - not for diagnosis"
    )
    canvas.drawRightString(A4[0] - _MARGIN - _FRAME_PADDING, 10 * mm, f"Page {document.page}")
