"""Chat templates of other makers: rendered as written, refused by name, shut in a sandbox."""

from __future__ import annotations

import pytest

from hope_serve.chat_template import ChatTemplate, ChatTemplateError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STRICT = (
    "{% if messages[0]['role'] != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}{{ bos_token }}ok"
)


def test_messages_are_rendered_with_and_without_a_reply_opened():
    template = ChatTemplate(CHATML)
    messages = [("user", "Hi {{ 7 * 7 }}"), ("assistant", "Hello.")]
    closed = "<|im_start|>user\nHi {{ 7 * 7 }}<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
    assert template.render(messages, reply=False) == closed
    assert template.render(messages) == closed + "<|im_start|>assistant\n"


def test_the_templates_own_refusal_is_passed_on():
    template = ChatTemplate(STRICT, bos_token="<s>")
    assert template.render([("user", "x")]) == "<s>ok"
    with pytest.raises(ChatTemplateError, match="begin with the user"):
        template.render([("system", "x")])


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{% set _ = messages.append(1) %}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_reaches_nothing_outside_itself(source):
    with pytest.raises(ChatTemplateError, match="refuses these messages"):
        ChatTemplate(source).render([("user", "x")])


@pytest.mark.parametrize(
    ("source", "words"),
    [("", "brings no chat template"), ("{% for %}", "no Jinja template"), ("x" * 100_001, "100,001 characters")],
)
def test_what_is_no_template_is_named(source, words):
    with pytest.raises(ChatTemplateError, match=words):
        ChatTemplate(source)
