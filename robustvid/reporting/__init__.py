"""Reports: readers of a run folder that draw, print and send what :class:`~robustvid.evaluation.results.Results` says.

``terminal`` prints tables, ``figures`` draws curves, ``page`` writes one offline HTML file, ``mlflow`` logs to a
tracking server. All of them read ``panels``, so that a curve looks the same everywhere.
"""
