"""What Redis answered: one word for programs, whichever version of it and whoever was asked."""

import pytest

from askel import StoreReplyError

KIND = "Operation against a key holding the wrong kind of value"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (f"WRONGTYPE {KIND}", "WRONGTYPE"),
        (f"WRONGTYPE {KIND} script: 0be39, on @user_script:29.", "WRONGTYPE"),
        (
            f"ERR Error running script (call to f_0be39): @user_script:29: WRONGTYPE {KIND}",
            "WRONGTYPE",
        ),
        ("ERR Error running script (call to f_0): @user_script:3: -OOM command not allowed", "OOM"),
        ("ERR Error running script (call to f_0): @user_script:3: attempt to index a nil", "ERR"),
        ("UNBLOCKED force unblock from blocking operation", "UNBLOCKED"),
        ("", ""),
    ],
)
def test_the_code_is_the_word_of_redis_itself(message, code):
    assert StoreReplyError(message).code == code
