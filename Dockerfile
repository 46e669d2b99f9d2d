# asyncq in a container; its command line is the entry point: docker run --rm -it asyncq train --help
# DEVICE=cuda takes the torch that pip finds by itself, on Linux a CUDA build, which runs without a GPU as well.
# DEVICE=cpu insists on torch's much smaller +cpu build; PIP_EXTRA_INDEX_URL then tells pip where there is one.

FROM python:3.11-slim AS build
ARG DEVICE=cuda
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/asyncq

# what asyncq depends on, without asyncq: a layer that a change of the source leaves as it is
WORKDIR /dependencies
COPY pyproject.toml constraints.txt ./
RUN if [ "$DEVICE" = cpu ]; then sed -i 's/^torch==.*/&+cpu/' constraints.txt; fi \
    && mkdir -p src/asyncq && touch src/asyncq/__init__.py README.md \
    && /opt/asyncq/bin/pip install --quiet -c constraints.txt '.[video,window]'

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/asyncq/bin/pip install --quiet --no-deps --force-reinstall .

FROM python:3.11-slim
COPY --from=build /opt/asyncq /opt/asyncq
RUN useradd --create-home --uid 1000 asyncq && install -d -o asyncq -g asyncq /data /data/runs
ENV PATH=/opt/asyncq/bin:$PATH PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER asyncq
WORKDIR /data
ENTRYPOINT ["asyncq"]
CMD ["--help"]
