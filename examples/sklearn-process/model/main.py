# SPDX-License-Identifier: Apache-2.0
"""The program of the model: a pickle of scikit-learn, loaded here and nowhere else."""
import pickle

from weir_runtime import serve

with open("model.pkl", "rb") as file:
    model = pickle.load(file)


def predict(inputs):
    probabilities = model.predict_proba(inputs["x"])
    return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}


serve(predict)
