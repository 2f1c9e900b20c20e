/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The predicted class of an answer: enough of the answer is read for that, and no more.
 */
#pragma once

#include "load/bodies.h"

struct load_reader {
    enum load_api api;
    str field;   /* LOAD_PREDICT: the field of the class, "prediction"; LOAD_OIP: the output */
    bool argmax; /* LOAD_OIP: the output holds scores; the place of the largest names the class */
};

/* The class of an answer as a text, or p == NULL when it has none. Borrowed from the body, except
 * for argmax ("0", "1", …: literals up to LOAD_CLASSES_MAX). Accepts any bytes. */
str load_answer_class(const struct load_reader *reader, str body);
