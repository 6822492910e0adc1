"""The code that MLflow keeps in a model's folder and runs to load the model, instead of a pickled object."""

from mlflow.models import set_model

from aerofuse.serving.photo_model import PhotoModel

set_model(PhotoModel())
