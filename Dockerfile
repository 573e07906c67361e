# made by `make docker`; edit tools/dockerfile.py
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/*
WORKDIR /geoseg
COPY pinned.txt ./
RUN python -m pip install --no-cache-dir --no-deps -r pinned.txt
COPY settings.ini setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY geoseg geoseg
COPY nbs/train.ipynb nbs/
RUN python -m pip install --no-cache-dir --no-deps .
RUN python -m pip check && geoseg --help
RUN useradd --create-home served
USER served
EXPOSE 8080
# docker run -p 127.0.0.1:8080:8080 -v RUN:/run:ro geoseg --checkpoint /run
ENTRYPOINT ["geoseg", "serve", "host=0.0.0.0"]
