"""Operations that have several exact lowerings; `forms` says which one runs."""
